"""One small file per command of the shell: SUMMARY, USAGE, EXAMPLES, `add` (its flags) and `run` (its exit code).
None of them imports torch before it runs, so that help is instant."""
