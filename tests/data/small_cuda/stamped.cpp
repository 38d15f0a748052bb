const char *when() { return __DATE__ " " __TIME__; }
