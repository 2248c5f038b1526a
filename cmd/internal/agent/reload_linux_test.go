package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
)

// SIGHUP takes over sinks and rules, and keeps what is open: a new sink is told what comes, and an old finding may still be acknowledged.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf("spool: {dir: %s/spool}\nrecorder: {enabled: false}\nhttp: {listen: ''}\nsinks:\n- {name: a, type: file, path: %s/a.ndjson}\n", dir, dir)
	cfg := configure(t, text)
	next := configure(t, text+fmt.Sprintf("- {name: b, type: file, path: %s/b.ndjson}\n", dir))
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	ag, err := newAgent(&cli.App{Log: cli.NewLog("text", false)}, cfg, set, "ndjson")
	if err != nil {
		t.Fatal(err)
	}
	w := &Watch{}
	w.states = newStates(w)
	ag.watches, ag.tapes = []*Watch{w}, []*tape{{}}
	tell := func(id string, state analyze.State, seq uint64) {
		t.Helper()
		f := &analyze.Finding{Schema: analyze.FindingSchema, ID: id, Rule: "surge", Severity: "error", State: state, Seq: seq}
		if err := ag.finding(w, f); err != nil {
			t.Fatal(err)
		}
	}
	tell("surge-1", analyze.Open, 1)
	if !watchesAlike(cfg, next) {
		t.Error("another sink is taken for another thing to watch")
	}
	if err := ag.reload(next); err != nil {
		t.Fatal(err)
	}
	if w.next.Load() == nil {
		t.Error("the rules stay the old ones")
	}
	tell("surge-2", analyze.Open, 2)
	if open := ag.newest(); len(open) != 2 {
		t.Errorf("%d findings are open", len(open))
	}
	if !ag.delivery.Load().Ack("surge-1") {
		t.Error("what was open before cannot be acknowledged")
	}
	ag.close()
	for name, want := range map[string][]string{"a": {"surge-1", "surge-2"}, "b": {"surge-2"}} {
		b, err := os.ReadFile(filepath.Join(dir, name+".ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range want {
			if n := strings.Count(string(b), `"id":"`+id+`"`); n != 1 {
				t.Errorf("%s has %s %d times", name, id, n)
			}
		}
	}
	for _, text := range []string{"capture: {interfaces: [eth0]}", "host: {every: 2s}", "netns: [a]", "local: 10.0.0.1"} {
		if watchesAlike(config.Default(), configure(t, text+"\n")) {
			t.Errorf("%s is taken for no other thing to watch", text)
		}
	}
}
