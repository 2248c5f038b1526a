package sink

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// killIDs are the findings that the records of a child are about, in turn.
const killIDs = 97

// TestKillReceivers kills the agent at random moments, 50 times with JINDAN_KILLS=50, while two receivers fail at random. What the spool
// had taken reaches both, in order for each finding, and what comes twice is the same.
func TestKillReceivers(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: kills processes for some 10 s")
	}
	kills := 8
	if n, err := strconv.Atoi(os.Getenv("JINDAN_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	receivers := []*sinktest.Restless{sinktest.NewRestless(t), sinktest.NewRestless(t)}
	durable := 0
	var stderr bytes.Buffer
	for killed := 0; ; killed++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JINDAN_SINK_CHILD="+dir, "JINDAN_SINK_FROM="+strconv.Itoa(durable),
			"JINDAN_SINK_URLS="+receivers[0].URL+" "+receivers[1].URL)
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := killed == kills
		if !last {
			timer := time.AfterFunc(time.Duration(50+rand.IntN(800))*time.Millisecond, func() { cmd.Process.Kill() })
			defer timer.Stop()
		}
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if durable, err = strconv.Atoi(sc.Text()); err != nil {
				t.Fatal(err)
			}
			if !last && durable > (killed+1)*killRecords/(kills+1) { // something is left for every kill
				cmd.Process.Kill()
			}
		}
		if err := cmd.Wait(); last {
			if err != nil {
				t.Fatalf("%v: %s", err, stderr.String())
			}
			break
		}
	}
	if stderr.Len() > 0 {
		t.Log(stderr.String())
	}
	for _, x := range receivers {
		var lost []int
		for n := range killRecords {
			f := aFinding(n%killIDs, analyze.Update, severities[n%3])
			f.Seq = uint64(n + 1)
			if f.Severity != "info" && !x.Has(f) {
				lost = append(lost, n+1)
			}
		}
		if len(lost) > 0 {
			t.Errorf("%s: %d kills, lost %v", x.URL, kills, lost)
		}
		x.Done(t)
	}
}
