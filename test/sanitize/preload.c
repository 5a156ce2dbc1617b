/*
 * Loaded into the servers of make check-sanitize, before the libraries of gcc's sanitizers.
 *
 * Their options stand here and not in the environment, because PostgreSQL writes its process titles where that was, and the
 * second of the two libraries reads it at the first report only.
 */

/*
 * Looked up by both libraries with dlsym() when they start.  Where it is missing, dlsym() makes its message with gettext, which
 * allocates, which starts them again, without end.
 */
char *
swift_demangle(const char *name, unsigned long size, char *output, unsigned long *output_size, unsigned flags)
{
	return 0;
}

/*
 * No leaks: what memory contexts keep is theirs.  A report does not end the process, so that the tests go on and find more.
 */
const char *
__asan_default_options(void)
{
	return "verify_asan_link_order=0:detect_leaks=0:halt_on_error=0:quarantine_size_mb=32";
}

const char *
__ubsan_default_options(void)
{
	return "print_stacktrace=1";
}
