package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/transfer/trust"
)

// Exit codes, of sysexits.h where it has one: systemd knows these by name.
const (
	exitOK          = 0
	exitNo          = 1 // the answer is no, or a failure of no other kind
	exitUsage       = 64
	exitUnavailable = 69 // no daemon answers
	exitBug         = 70
	exitCannot      = 73 // cannot create a file, or it is there already
	exitPermission  = 77
	exitConfig      = 78
)

// An exitError has its own code.
type exitError struct {
	code int
	msg  string // empty: all has been said
}

func (e exitError) Error() string { return e.msg }

func usage(format string, args ...any) error {
	return exitError{exitUsage, fmt.Sprintf(format, args...)}
}

// errNo is the answer "no": everything has been printed.
var errNo = exitError{code: exitNo}

func codeOf(err error) int {
	var (
		own   exitError
		wrong config.Errors
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &wrong), errors.Is(err, trust.ErrKeyFile):
		return exitConfig
	case errors.Is(err, control.ErrUnreachable):
		return exitUnavailable
	case errors.Is(err, control.ErrDenied), errors.Is(err, fs.ErrPermission):
		return exitPermission
	case errors.Is(err, fs.ErrExist):
		return exitCannot
	}
	return exitNo
}
