package sink

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"jindan/analyze"
)

// answers is a receiver that keeps requests and answers by a function.
type answers struct {
	mu     sync.Mutex
	heads  []http.Header
	paths  []string
	bodies []string
	answer func(n int, body string, w http.ResponseWriter)
}

func (a *answers) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var in io.Reader = q.Body
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(q.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in = z
	}
	b, _ := io.ReadAll(in)
	a.mu.Lock()
	n := len(a.bodies)
	a.heads, a.paths, a.bodies = append(a.heads, q.Header), append(a.paths, q.URL.Path), append(a.bodies, string(b))
	a.mu.Unlock()
	if a.answer != nil {
		a.answer(n, string(b), w)
	}
}

func serve(t *testing.T, answer func(n int, body string, w http.ResponseWriter)) (*answers, string) {
	a := &answers{answer: answer}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return a, s.URL
}

func must(t *testing.T) func(Sink, error) Sink {
	return func(s Sink, err error) Sink {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestWebhookFormats(t *testing.T) {
	batch := messages(t, 3)
	for format, check := range map[string]func(body string) error{
		"json": func(body string) error {
			var f []analyze.Finding
			if err := json.Unmarshal([]byte(body), &f); err != nil || len(f) != 3 || f[2].Seq != 3 {
				return fmt.Errorf("%w, %d findings", err, len(f))
			}
			return nil
		},
		"ndjson": func(body string) error {
			if l := strings.Split(body, "\n"); len(l) != 4 || l[1] != string(batch[1].Data) {
				return fmt.Errorf("%d lines", len(l))
			}
			return nil
		},
		"loki": func(body string) error {
			var p struct {
				Streams []struct {
					Stream map[string]string
					Values [][]string
				}
			}
			if err := json.Unmarshal([]byte(body), &p); err != nil || len(p.Streams) != 1 || len(p.Streams[0].Values) != 3 ||
				p.Streams[0].Values[0][0] != "1700000000000000000" || p.Streams[0].Stream["level"] != "warn" {
				return fmt.Errorf("%w %+v", err, p)
			}
			return nil
		},
	} {
		a, url := serve(t, nil)
		k := must(t)(NewWebhook(WebhookOptions{Address: url, Format: format, HTTP: HTTP{Headers: map[string]string{"Authorization": "Bearer x"}}}))
		out := make([]Outcome, 3)
		if err := k.Send(context.Background(), batch, out); err != nil || out[2] != Accepted {
			t.Fatal(err, out)
		}
		if err := check(a.bodies[0]); err != nil {
			t.Errorf("%s: %v\n%s", format, err, a.bodies[0])
		}
		if a.heads[0].Get("Authorization") != "Bearer x" || a.paths[0] != webhookPaths[format] {
			t.Errorf("%s: %v %v", format, a.heads[0], a.paths[0])
		}
	}
	for _, bad := range []WebhookOptions{{}, {Address: "ftp://h"}, {Address: "http://h", Format: "xml"}} {
		if _, err := NewWebhook(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestElasticPartial: of a bulk request some documents are accepted, some are to be
// retried and some are refused for good.
func TestElasticPartial(t *testing.T) {
	var mu sync.Mutex
	stored := map[string]int{}
	var order []string
	a, url := serve(t, func(n int, body string, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		var items []string
		lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		for i := 0; i < len(lines); i += 2 {
			var action struct {
				Create struct {
					ID string `json:"_id"`
				}
			}
			var f analyze.Finding
			if json.Unmarshal([]byte(lines[i]), &action) != nil || json.Unmarshal([]byte(lines[i+1]), &f) != nil || action.Create.ID == "" {
				t.Errorf("bulk lines %q %q", lines[i], lines[i+1])
			}
			status := 201
			switch {
			case f.Seq == 4:
				status = 400
			case f.Seq%3 == 0 && n == 0:
				status = 429
			case stored[action.Create.ID] > 0:
				status = 409
			}
			if status == 201 {
				stored[action.Create.ID]++
				order = append(order, fmt.Sprint(f.Seq))
			}
			items = append(items, fmt.Sprintf(`{"create":{"_id":%q,"status":%d,"error":{"type":"x"}}}`, action.Create.ID, status))
		}
		fmt.Fprintf(w, `{"errors":true,"items":[%s]}`, strings.Join(items, ","))
	})
	k := must(t)(NewWebhook(WebhookOptions{Address: url + "/sec/_bulk", Format: "elastic"}))
	s, r := deliver(t, Output{Sink: k})
	for i := range 9 {
		put(t, s, record(t, i, analyze.Open, "warn"))
	}
	eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
	mu.Lock()
	defer mu.Unlock()
	if st := r.Status(); len(stored) != 8 || st.Sent != 8 || st.Rejected != 1 {
		t.Errorf("%v %+v", stored, st)
	}
	if a.paths[0] != "/sec/_bulk" {
		t.Error(a.paths)
	}
}

// TestElasticOrder: two records of one finding never share a request, so that a
// refusal of the first cannot let the second overtake it.
func TestElasticOrder(t *testing.T) {
	var sizes []int
	_, url := serve(t, func(n int, body string, w http.ResponseWriter) {
		items := strings.Repeat(`{"create":{"status":201}},`, strings.Count(body, "\n")/2)
		sizes = append(sizes, strings.Count(body, "\n")/2)
		fmt.Fprintf(w, `{"items":[%s]}`, strings.TrimSuffix(items, ","))
	})
	k := must(t)(NewWebhook(WebhookOptions{Address: url, Format: "elastic"}))
	batch := messages(t, 4)
	batch[2].ID = batch[0].ID
	out := make([]Outcome, 4)
	if err := k.Send(context.Background(), batch, out); err != nil || out[3] != Accepted || fmt.Sprint(sizes) != "[2 2]" {
		t.Error(err, out, sizes)
	}
}

// TestHTTPFaults: what a receiver over HTTP can do wrong, and what becomes of the records.
func TestHTTPFaults(t *testing.T) {
	status := func(code int, times int) func(int, string, http.ResponseWriter) {
		return func(n int, _ string, w http.ResponseWriter) {
			if n < times {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "no", code)
			}
		}
	}
	for _, c := range []struct {
		code, times             int
		sent, rejected, retried uint64
	}{
		{429, 2, 3, 0, 2}, {408, 1, 3, 0, 1}, {425, 1, 3, 0, 1}, {500, 3, 3, 0, 3}, {503, 1, 3, 0, 1}, {401, 2, 3, 0, 2},
		{400, 99, 0, 3, 0}, {404, 99, 0, 3, 0}, {413, 99, 0, 3, 0},
	} {
		t.Run(fmt.Sprint(c.code), func(t *testing.T) {
			_, url := serve(t, status(c.code, c.times))
			s := openSpool(t, 0, "x")
			for i := range 3 {
				put(t, s, record(t, i, analyze.Open, "warn"))
			}
			r, err := NewRunner(s, Output{Name: "x", Sink: must(t)(NewWebhook(WebhookOptions{Address: url})), MinWait: time.Millisecond, MaxWait: 10 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go r.Run(ctx)
			eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
			if st := r.Status(); st.Sent != c.sent || st.Rejected != c.rejected || st.Retried != c.retried {
				t.Errorf("%+v", st)
			}
		})
	}
	l := listen(t) // accepts and never answers
	defer l.Close()
	for address, word := range map[string]string{"http://user:secret@127.0.0.1:1": "refused", "http://" + l.Addr().String(): "deadline"} {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		k := must(t)(NewWebhook(WebhookOptions{Address: address}))
		err := k.Send(ctx, messages(t, 1), make([]Outcome, 1))
		cancel()
		if err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestOTLPPartialSuccess(t *testing.T) {
	a, url := serve(t, func(n int, _ string, w http.ResponseWriter) {
		fmt.Fprint(w, `{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}`)
	})
	k := must(t)(NewOTLP(OTLPOptions{Address: url}))
	s, r := deliver(t, Output{Sink: k})
	rs := []Record{record(t, 0, analyze.Open, "warn"), record(t, 1, analyze.Open, "warn"), record(t, 2, analyze.Open, "warn")}
	for _, x := range rs {
		put1(t, s, x)
	}
	flush(t, s)
	eventually(t, "all are passed", func() bool { return r.Status().Lag == 0 })
	if st := r.Status(); st.Rejected < 2 || st.Sent+st.Rejected != 3 || !strings.Contains(st.LastError, "too old") || a.paths[0] != "/v1/logs" {
		t.Errorf("%+v %v", st, a.paths)
	}
}
