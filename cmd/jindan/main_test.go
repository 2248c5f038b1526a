package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// asProgram makes the test program behave as jindan.
const asProgram = "JINDAN_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if keepCapabilities() {
		return
	}
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
