// Package config reads the one configuration file of a node.
//
// It is strict: an unknown key, a wrong type or an impossible value is an error
// that names file and line and says what was probably meant, and all errors are
// told at once. What Load returns is complete (every default filled in) and
// valid. The file is read when asked and never watched.
//
// One table row per option (options.go) drives the reader, what a reload may
// change, and the commented file that "clsync init" writes.
package config
