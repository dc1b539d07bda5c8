// What a name may look like, wherever it comes from: the command line, a settings file or
// routing.db. No name may hold a control character, so none can break a log line or a table.

/**
 * Nameable in `app@host:port` and in a comma list; `*` alone means any app and is no name.
 * No `u` flag, here and below: it makes 10,000 rows twice as slow to check.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused.
export const APP_PATTERN = /^(?!\*$)[^\s,@\u0000-\u001f\u007f-\u009f]{1,64}$/;
/** After lower-casing. */
export const REGION_PATTERN = /^[a-z0-9-]{1,16}$/;
/** What goes into an HTTP request line: no blank, no control character, so nothing can be smuggled. */
export const HTTP_PATH_PATTERN = /^\/[!-~]{0,1023}$/;
export const TOKEN_PATTERN = /^[!-~]{16,512}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused.
export const BACKEND_ID_PATTERN = /^(?! )[^\u0000-\u001f\u007f-\u009f]{1,128}(?<! )$/;
