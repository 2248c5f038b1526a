package sink

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jindan/analyze"
)

// killIDs are the findings that the records of a child are about, in turn.
const killIDs = 97

// restless is a receiver over HTTP that fails at random: it refuses, hangs up unread, or takes a request and hangs up unanswered.
type restless struct {
	mu      sync.Mutex
	seen    map[uint64][]byte // by running number
	newest  map[string]uint64 // by id
	failed  int
	twice   int
	trouble []string
}

func (x *restless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	luck := rand.Float64()
	if luck < 0.1 {
		x.fail()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if luck < 0.2 {
		x.fail()
		panic(http.ErrAbortHandler)
	}
	var batch []json.RawMessage
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, &batch)
	}
	if err != nil {
		x.fail() // its sender was killed
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	x.take(batch)
	if luck < 0.3 {
		x.fail()
		panic(http.ErrAbortHandler)
	}
}

func (x *restless) fail() {
	x.mu.Lock()
	x.failed++
	x.mu.Unlock()
}

func (x *restless) take(batch []json.RawMessage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range batch {
		var f analyze.Finding
		if err := json.Unmarshal(m, &f); err != nil {
			x.trouble = append(x.trouble, err.Error())
			continue
		}
		if was, ok := x.seen[f.Seq]; ok {
			if x.twice++; !bytes.Equal(was, m) {
				x.trouble = append(x.trouble, "record "+strconv.FormatUint(f.Seq, 10)+" comes twice and differs")
			}
			continue
		}
		if f.Seq < x.newest[f.ID] {
			x.trouble = append(x.trouble, "record "+strconv.FormatUint(f.Seq, 10)+" of its finding comes for the first time after a newer one")
		}
		x.seen[f.Seq], x.newest[f.ID] = m, f.Seq
	}
}

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
	dir, urls := t.TempDir(), []string{}
	receivers := [2]*restless{}
	for i := range receivers {
		receivers[i] = &restless{seen: make(map[uint64][]byte), newest: make(map[string]uint64)}
		s := httptest.NewServer(receivers[i])
		defer s.Close()
		urls = append(urls, s.URL)
	}
	durable := 0
	var stderr bytes.Buffer
	for killed := 0; ; killed++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "JINDAN_SINK_CHILD="+dir, "JINDAN_SINK_FROM="+strconv.Itoa(durable), "JINDAN_SINK_URLS="+strings.Join(urls, " "))
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
	for i, x := range receivers {
		var lost []int
		for n := range killRecords {
			if severities[n%3] != "info" && x.seen[uint64(n+1)] == nil {
				lost = append(lost, n+1)
			}
		}
		t.Logf("receiver %d, %d kills: %d records, %d at warn and above lost, %d twice, %d requests failed", i+1, kills, len(x.seen), len(lost), x.twice, x.failed)
		if len(lost) > 0 || len(x.trouble) > 0 {
			t.Errorf("receiver %d: lost %v; %q", i+1, lost, x.trouble[:min(len(x.trouble), 5)])
		}
	}
}
