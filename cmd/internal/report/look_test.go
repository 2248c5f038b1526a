package report

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestLook(t *testing.T) {
	in, d := outage()
	for _, l := range []Lang{English, Korean} {
		var b strings.Builder
		Text(&b, in, d, Options{Lang: l, Catalogue: fakeCatalogue{}, Verbose: os.Getenv("V") != ""})
		fmt.Print(b.String(), "=== ", strings.Count(b.String(), "\n"), "\n")
	}
	in, d = healthy()
	for _, l := range []Lang{English, Korean} {
		Text(os.Stdout, in, d, Options{Lang: l, Catalogue: fakeCatalogue{}})
	}
}
