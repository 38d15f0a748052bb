// Knows where it is, and has names that no other file sees.
namespace {
struct Hidden {
    Hidden() : path(__FILE__) {}
    const char *path;
} hidden;
}

const char *where() { return hidden.path; }
