package cli

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/rs/zerolog"

	"jindan/cmd/internal/report"
)

// NewLog returns the program's own log on standard error: one line a message,
// "jindan: …" or JSON.
func NewLog(format string, color bool) zerolog.Logger { return newLogTo(os.Stderr, format, color) }

func newLogTo(w io.Writer, format string, color bool) zerolog.Logger {
	if format == "json" {
		return zerolog.New(jsonLines{w}).With().Timestamp().Logger()
	}
	return zerolog.New(zerolog.ConsoleWriter{
		Out: w, NoColor: true, PartsOrder: []string{zerolog.LevelFieldName, zerolog.MessageFieldName},
		FormatLevel: func(l any) string {
			word, style := "", ""
			switch l {
			case zerolog.LevelErrorValue:
				style = "\x1b[1;31m"
			case zerolog.LevelWarnValue:
				word, style = " warning:", "\x1b[1;33m"
			}
			if !color || style == "" {
				return "jindan:" + word
			}
			return style + "jindan:" + word + "\x1b[0m"
		},
		FormatMessage:    func(m any) string { return report.Clean(fmt.Sprint(m)) },
		FormatFieldValue: func(v any) string { return report.Clean(fmt.Sprint(v)) },
	})
}

// jsonLines makes the texts of JSON lines harmless.
type jsonLines struct{ w io.Writer }

func (j jsonLines) Write(p []byte) (int, error) {
	if _, err := j.w.Write(report.CleanJSON(slices.Clone(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
