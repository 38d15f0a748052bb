/* Tell what the shared library of an engine says of itself: report LIBRARY FOLDER [ARCHITECTURE...]

   FOLDER holds the backends that an engine may load at run time. Of architectures of models tell, behind
   the rest, whether the engine knows them: each is given a file that holds the name and nothing else. Each
   line of standard output is a record: its kind and three fields, in which all but plain characters are
   %XX. What the engine itself prints goes to standard error. No header of an engine is used: the functions
   are those of llama.h and ggml-backend.h, and each is called only where it is exported.

     at FUNCTION             it is called next: where a crash or an endless loop was
     absent WHY              the library can not be loaded
     error WHY FUNCTION      why there is no more; a function where one is meant
     info TEXT               what llama_print_system_info returned
     backend NAME
     feature NAME VALUE      of the last backend
     device KIND NAME TEXT   of the last backend; KIND is a number of ggml_backend_dev_type
     end                     nothing of the above is missing
     model NAME KNOWN        of each architecture: yes, no, or empty when it can not be told */

#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct feature { const char *name, *value; };  /* ggml_backend_feature */

static FILE *out;
static void *library;
static pid_t self;
static size_t left = 1 << 18;  /* bytes before escaping; a real engine says 1 or 2 KiB */

static void field(const char *text)
{
    fputc(' ', out);
    for (; text && *text; text++)
        fprintf(out, *text > ' ' && *text <= '~' && *text != '%' ? "%c" : "%%%02X", (unsigned char) *text);
}

static void record(const char *kind, const char *a, const char *b, const char *c)
{
    size_t size = 8 + (a ? strlen(a) : 0) + (b ? strlen(b) : 0) + (c ? strlen(c) : 0);

    if (getpid() != self)
        _exit(1);  /* the engine forked, and its child came back here */
    if (size > left)
        kind = "error", a = "it says more than 256 KiB", b = c = NULL;
    fputs(kind, out), field(a), field(b), field(c), fputc('\n', out);
    fflush(out);
    if (size > left)
        _exit(0);
    left -= size;
}

static void stop(const char *kind, const char *why, const char *function)
{
    record(kind, why, function, NULL);
    _exit(0);  /* not through the engine's destructors: they are not what is asked */
}

static int has(const char *name)
{
    return dlsym(library, name) != NULL;
}

static void *entry(const char *name)
{
    void *found = dlsym(library, name);

    if (!found)
        stop("error", "it does not export", name);
    record("at", name, NULL, NULL);
    return found;
}

#define ENTRY(name, result, ...) ((result (*)(__VA_ARGS__)) entry(#name))

static void features(void *backend)
{
    struct feature *(*get)(void *);
    struct feature *one;

    get = (struct feature *(*)(void *)) ENTRY(ggml_backend_reg_get_proc_address, void *, void *, const char *)(
        backend, "ggml_backend_get_features");
    if (!get)
        return;
    record("at", "ggml_backend_get_features", NULL, NULL);
    for (one = get(backend); one && one->name; one++)
        record("feature", one->name, one->value, NULL);
}

static void devices(void *backend)
{
    size_t i, count = ENTRY(ggml_backend_reg_dev_count, size_t, void *)(backend);

    for (i = 0; i < count; i++) {
        void *device = ENTRY(ggml_backend_reg_dev_get, void *, void *, size_t)(backend, i);
        const char *name = ENTRY(ggml_backend_dev_name, const char *, void *)(device);
        const char *text = ENTRY(ggml_backend_dev_description, const char *, void *)(device);
        char kind[16];

        snprintf(kind, sizeof kind, "%d", ENTRY(ggml_backend_dev_type, int, void *)(device));
        record("device", kind, name, text);
    }
}

static void backends(void)
{
    size_t i, count = ENTRY(ggml_backend_reg_count, size_t, void)();

    for (i = 0; i < count; i++) {
        void *backend = ENTRY(ggml_backend_reg_get, void *, size_t)(i);

        record("backend", ENTRY(ggml_backend_reg_name, const char *, void *)(backend), NULL, NULL);
        if (has("ggml_backend_reg_get_proc_address"))
            features(backend);
        if (has("ggml_backend_reg_dev_count"))
            devices(backend);
    }
}

static void old_backends(void)  /* before the registry had handles */
{
    size_t i, count = ENTRY(ggml_backend_reg_get_count, size_t, void)();

    for (i = 0; i < count; i++)
        record("backend", ENTRY(ggml_backend_reg_get_name, const char *, size_t)(i), NULL, NULL);
}

static char said[1 << 14];  /* what the engine logged while it tried one model */

static void hear(int level, const char *text, void *data)
{
    size_t used = strlen(said);

    (void) level, (void) data;
    snprintf(said + used, sizeof said - used, "%s", text ? text : "");
}

/* llama_model_params is larger in some versions than in others, and always smaller than this. As the last
   argument of a call a larger structure does no harm: it is read from memory, from its beginning. */
struct params { char bytes[4096]; };

static int write_model(const char *path, const char *name)
{
    static const char key[] = "general.architecture";
    const uint32_t version = 3, text = 8;  /* GGUF's specification, version 3, little-endian */
    const uint64_t tensors = 0, keys = 1, key_size = sizeof key - 1, name_size = strlen(name);
    FILE *file = fopen(path, "wb");

    if (!file)
        return 0;
    fwrite("GGUF", 4, 1, file), fwrite(&version, 4, 1, file);
    fwrite(&tensors, 8, 1, file), fwrite(&keys, 8, 1, file);
    fwrite(&key_size, 8, 1, file), fwrite(key, key_size, 1, file);
    fwrite(&text, 4, 1, file);
    fwrite(&name_size, 8, 1, file), fwrite(name, name_size, 1, file);
    return fclose(file) == 0;
}

static void models(char **names)
{
    static const char path[] = "model.gguf";  /* in this process's own folder */
    struct params params = ENTRY(llama_model_default_params, struct params, void)();
    void *(*load)(const char *, struct params) = (void *(*)(const char *, struct params)) entry(
        has("llama_model_load_from_file") ? "llama_model_load_from_file" : "llama_load_model_from_file");

    ENTRY(llama_log_set, void, void (*)(int, const char *, void *), void *)(hear, NULL);
    for (; *names; names++) {
        char prefix[128];

        if (!write_model(path, *names))
            stop("error", "a file can not be written", "");
        said[0] = '\0';
        record("at", *names, NULL, NULL);
        load(path, params);
        snprintf(prefix, sizeof prefix, " %s.", *names);  /* it looks for a key of that architecture */
        record("model", *names,
            strstr(said, "unknown model architecture") ? "no" : strstr(said, prefix) ? "yes" : "", NULL);
    }
}

int main(int argc, char **argv)
{
    const char *info;

    self = getpid();
    out = argc >= 3 ? fdopen(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100), "w") : NULL;
    if (!out || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return 2;
    record("at", "dlopen", NULL, NULL);
    library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        stop("absent", dlerror(), NULL);
    if (has("ggml_backend_load_all_from_path"))  /* as an engine's own tools begin */
        ENTRY(ggml_backend_load_all_from_path, void, const char *)(argv[2]);
    info = ENTRY(llama_print_system_info, const char *, void)();
    if (!info)
        stop("error", "nothing was returned by", "llama_print_system_info");
    record("info", info, NULL, NULL);
    if (has("ggml_backend_reg_count"))
        backends();
    else if (has("ggml_backend_reg_get_count"))
        old_backends();
    record("end", NULL, NULL, NULL);
    if (argc > 3)
        models(argv + 3);
    _exit(0);
}
