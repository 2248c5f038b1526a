package cli

import (
	"errors"
	"fmt"
	"strings"

	"jindan/cmd/internal/config"
)

// Exit codes.
const (
	ExitDone      = 0
	ExitFailOn    = 1   // --fail-on reached
	ExitUnusable  = 2   // arguments, input or output
	ExitInterrupt = 130 // SIGINT
	ExitTerminate = 143 // SIGTERM
)

// Status ends the program with a code other than 0. err, if there is one, is told on
// standard error in one line.
type Status struct {
	Code int
	Err  error
}

// Exit ends the program with a code; err may be nil.
func Exit(code int, err error) error { return &Status{code, err} }

func (s *Status) Error() string {
	if s.Err == nil {
		return fmt.Sprintf("exit status %d", s.Code)
	}
	return s.Err.Error()
}

func (s *Status) Unwrap() error { return s.Err }

// OneLine makes an error one line; errors.Join separates by line breaks.
func OneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// SplitErrors undoes errors.Join.
func SplitErrors(err error) []error {
	if err == nil {
		return nil
	}
	var j interface{ Unwrap() []error }
	if errors.As(err, &j) {
		return j.Unwrap()
	}
	return []error{err}
}

// Near is a suggestion for a misspelt word, empty if none of the known ones is close.
func Near(word string, known []string) string { return config.Near(word, known) }

// OneOf checks the value of a flag.
func OneOf(flag, value string, allowed ...string) error {
	for _, s := range allowed {
		if s == value {
			return nil
		}
	}
	return fmt.Errorf("%s %q: use %s or %s%s", flag, value, strings.Join(allowed[:len(allowed)-1], ", "), allowed[len(allowed)-1],
		Near(value, allowed))
}
