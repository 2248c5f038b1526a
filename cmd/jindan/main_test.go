package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// asProgram makes the test program behave as jindan.
const asProgram = "JINDAN_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	runProgram()
	if os.Getenv(asProgram) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"jindan": main})
}

// TestScripts runs testdata/*.txtar: the program as its users see it. Beside the usual commands
// the scripts have
//
//	capture KIND FILE    write a small capture (see synthetic_test.go)
//	patch FILE AT HEX    overwrite bytes; AT counts from the end if it is negative
//	truncate FILE N      cut N bytes off its end
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("LC_ALL", "C")
			e.Setenv("NO_COLOR", "")
			e.Setenv("COLUMNS", "100")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"capture":  cmdCapture,
			"truncate": cmdTruncate,
			"patch":    cmdPatch,
		},
	})
}

func TestLangFromEnv(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"", "en"}, {"LANG=ko_KR.UTF-8", "ko"}, {"LANG=en_US.UTF-8", "en"}, {"LANG=ko_KR.UTF-8 LC_ALL=C", "en"},
		{"LANG=C LC_MESSAGES=ko", "ko"}, {"LC_ALL=KO_kr", "ko"}, {"LANG=C.UTF-8", "en"},
	} {
		got := langFromEnv(func(k string) string {
			for _, kv := range strings.Fields(c.env) {
				if v, ok := strings.CutPrefix(kv, k+"="); ok {
					return v
				}
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.env, got, c.want)
		}
	}
}

func TestZone(t *testing.T) {
	at := time.Date(2023, 11, 17, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{"UTC": "00:00", "": "00:00", "+09:00": "09:00", "-0330": "20:30", "+09": "09:00"} {
		z, err := zone(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if got := at.In(z).Format("15:04"); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
	for _, s := range []string{"nowhere", "+99", "9"} {
		if _, err := zone(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func cmdTruncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncate FILE N")
	}
	data := []byte(ts.ReadFile(args[0]))
	n := atoi(ts, args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data[:len(data)-n], 0o666))
}

func cmdPatch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: patch FILE AT HEX")
	}
	data := []byte(ts.ReadFile(args[0]))
	at := atoi(ts, args[1])
	if at < 0 {
		at += len(data)
	}
	copy(data[at:], unhex(ts, args[2]))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o666))
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || synthetic[args[0]] == nil {
		ts.Fatalf("usage: capture KIND FILE")
	}
	w := newPcap()
	synthetic[args[0]](w)
	file := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o777))
	ts.Check(os.WriteFile(file, w.buf.Bytes(), 0o666))
}
