package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"
)

// LangFromEnv is the language that the locale asks for (POSIX.1-2017 §8.2).
func LangFromEnv(getenv func(string) string) string {
	for _, k := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := getenv(k); v != "" {
			if strings.HasPrefix(strings.ToLower(v), "ko") {
				return "ko"
			}
			break
		}
	}
	return "en"
}

// IsTerminal reports whether f is one.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// WantColor says whether to colour what goes to f (https://no-color.org).
func (a *App) WantColor(f *os.File) bool {
	switch a.Color {
	case "always":
		return true
	case "never":
		return false
	}
	return IsTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Columns is the width of the terminal behind f; 0 if there is none.
func Columns(f *os.File) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if n, _, err := term.GetSize(int(f.Fd())); err == nil {
		return n
	}
	return 0
}

// Zone reads the value of --tz: UTC, local, an offset such as +09:00, or a name such as Asia/Seoul.
func Zone(s string) (*time.Location, error) {
	switch strings.ToLower(s) {
	case "", "utc", "z":
		return time.UTC, nil
	case "local":
		return time.Local, nil
	}
	for _, layout := range []string{"-07:00", "-0700", "-07"} {
		if t, err := time.Parse(layout, s); err == nil {
			_, sec := t.Zone()
			return time.FixedZone(s, sec), nil
		}
	}
	if l, err := time.LoadLocation(s); err == nil {
		return l, nil
	}
	return nil, fmt.Errorf("--tz %q: use UTC, local, an offset such as +09:00, or a name such as Asia/Seoul", s)
}
