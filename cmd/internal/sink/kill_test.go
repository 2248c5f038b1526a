package sink

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
)

// TestMain turns the test binary into the agent of TestKill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("JINDAN_SINK_CHILD"); dir != "" {
		if err := child(dir, os.Getenv("JINDAN_SINK_FROM")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// killRecords flow through the spool in TestKill.
const killRecords = 10_000

// child delivers findings from a number on to a file, or to the receivers that JINDAN_SINK_URLS names, and says on standard
// output up to which one they are durable.
func child(dir, from string) error {
	first, err := strconv.Atoi(from)
	if err != nil {
		return err
	}
	outputs, ids := []Output(nil), killRecords
	for i, url := range strings.Fields(os.Getenv("JINDAN_SINK_URLS")) {
		w, err := NewWebhook(WebhookOptions{Address: url})
		if err != nil {
			return err
		}
		outputs = append(outputs, Output{Name: strconv.Itoa(i), Sink: w, Batch: 50, MinWait: 5 * time.Millisecond, MaxWait: 50 * time.Millisecond})
		ids = killIDs
	}
	if outputs == nil {
		f, err := NewFile(FileOptions{Path: filepath.Join(dir, "out")})
		if err != nil {
			return err
		}
		outputs = []Output{{Name: "file", Sink: f, Batch: 50}}
	}
	d, err := Start(Options{Spool: SpoolOptions{Path: filepath.Join(dir, "spool")}, Outputs: outputs})
	if err != nil {
		return err
	}
	for i := first; i < killRecords; i++ {
		f := aFinding(i%ids, analyze.Update, severities[i%3])
		f.Seq = uint64(i + 1)
		if err := d.Finding(f); err != nil {
			return err
		}
		if i%25 == 24 {
			if err := d.spool.Sync(context.Background()); err != nil {
				return err
			}
			fmt.Println(i + 1)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return d.Close(ctx)
}

// TestKill kills the agent 20 times at random moments. What the spool had taken
// reaches the file; what is in it twice is the same.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: kills 20 processes, takes about 15 s")
	}
	dir := t.TempDir()
	durable, kills := 0, 0
	var stderr bytes.Buffer
	for durable < killRecords || kills < 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JINDAN_SINK_CHILD="+dir, "JINDAN_SINK_FROM="+strconv.Itoa(durable))
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var timer *time.Timer
		if kills < 20 {
			timer = time.AfterFunc(time.Duration(20+rand.IntN(400))*time.Millisecond, func() { cmd.Process.Kill() })
		}
		// The first acknowledgements of this process; the pace leaves something to do for every kill.
		for sc := bufio.NewScanner(out); sc.Scan(); {
			n, err := strconv.Atoi(sc.Text())
			if err != nil {
				t.Fatal(err)
			}
			durable = n
			if kills < 20 && n > (kills+1)*killRecords/21 {
				cmd.Process.Kill()
			}
		}
		err = cmd.Wait()
		if kills == 20 && err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		if timer != nil {
			timer.Stop()
			kills++
		}
		if kills == 20 && timer == nil {
			break
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64][]byte{}
	torn, twice := 0, 0
	for _, l := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		var f analyze.Finding
		if json.Unmarshal(l, &f) != nil {
			torn++
			continue
		}
		if was, ok := seen[f.Seq]; ok {
			twice++
			if !bytes.Equal(was, l) {
				t.Errorf("finding %d comes twice and differs:\n%s\n%s", f.Seq, was, l)
			}
		}
		seen[f.Seq] = l
	}
	lost := 0
	for i := range killRecords {
		if seen[uint64(i+1)] == nil {
			lost++
		}
	}
	t.Logf("%d kills: %d records, %d lost, %d twice, %d lines cut short", kills, len(seen), lost, twice, torn)
	if lost > 0 || torn > kills {
		t.Errorf("%d records lost, %d lines cut short", lost, torn)
	}
}
