package rules

import (
	"math"
	"strings"
	"sync"
	"testing"
)

func TestEval(t *testing.T) {
	s, err := loadSmall(small)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rule("thing")
	for _, c := range []struct {
		features any
		severity string
		holds    bool
	}{
		{thing{N: 10, X: 0.5}, "warn", true},
		{&thing{N: 10, X: 11}, "error", true},
		{thing{N: 9, X: 0.5}, "", false},
		{thing{N: 10, X: 0.03}, "", false},
		{thing{N: 10, X: math.NaN()}, "", false},
		{map[string]any{"n": uint32(10), "x": float32(0.5)}, "warn", true},
		{map[string]any{"n": 10}, "", false}, // absent features are zero
		{nil, "", false},
	} {
		severity, holds, err := r.Eval(c.features)
		if err != nil || severity != c.severity || holds != c.holds {
			t.Errorf("Eval(%+v) = %q, %v, %v", c.features, severity, holds, err)
		}
	}
	if r.Failures() != 0 {
		t.Errorf("%d failures", r.Failures())
	}
}

// A rule is cleared where clear holds and when does not.
func TestIsClear(t *testing.T) {
	s, err := loadSmall(change(t, "thing.yaml", "when: n >= low && x > part", "when: n >= low && x > part\nclear: at_most(0, n) < part || n == 50"))
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rule("thing")
	for _, c := range []struct {
		features any
		clear    bool
	}{
		{thing{N: 9}, false},
		{thing{N: 1000}, true},
		{thing{N: 50}, true},
		{thing{N: 50, X: 0.5}, false}, // it is found
		{nil, false},
	} {
		if clear, err := r.IsClear(c.features); clear != c.clear || err != nil {
			t.Errorf("IsClear(%+v) = %v, %v", c.features, clear, err)
		}
	}
}

func TestAtMost(t *testing.T) {
	for _, c := range []struct {
		bad, n   int
		from, to float64 // the exact bound (Clopper and Pearson) lies near
	}{
		{0, 0, 1, 1}, {0, 1, 0.7, 0.95}, {0, 100, 0.02, 0.03}, {3, 100, 0.06, 0.08}, {184, 184, 1, 1}, {-1, 10, 0, 0.3},
	} {
		if got := AtMost(c.bad, c.n); got < c.from || got > c.to {
			t.Errorf("AtMost(%d, %d) = %v, expected %v to %v", c.bad, c.n, got, c.from, c.to)
		}
	}
}

// What cannot be computed does not hold and is reported once.
func TestEvalFails(t *testing.T) {
	s, err := loadSmall(change(t, "thing.yaml", "n >= low && x > part", "10 % n >= 0"))
	if err != nil {
		t.Fatal(err)
	}
	r := s.Rule("thing")
	_, holds, err := r.Eval(thing{})
	if holds || err == nil || !strings.Contains(err.Error(), "rule thing (thing.yaml): evaluate when: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a division by zero: %v, %v", holds, err)
	}
	if _, holds, err := r.Eval(thing{}); holds || err != nil || r.Failures() != 2 {
		t.Errorf("the second one: %v, %v, %d failures", holds, err, r.Failures())
	}
	if _, holds, err := r.Eval(thing{N: 3}); !holds || err != nil {
		t.Errorf("after it: %v, %v", holds, err)
	}
	for _, features := range []any{struct{}{}, 3, (*thing)(nil), map[string]any{"n": "3"}} {
		fresh, _ := loadSmall(small)
		if _, holds, err := fresh.Rule("thing").Eval(features); holds || err == nil {
			t.Errorf("Eval(%T): %v, %v", features, holds, err)
		}
		if _, err := r.Render("en", "summary", features, nil); err == nil {
			t.Errorf("Render(%T): no error", features)
		}
	}
	if _, err := r.Render("en", "summary", nil, map[string]any{"port": "53"}); err == nil {
		t.Error("a port that is a text: no error")
	}
	if _, err := r.Render("de", "summary", nil, nil); err == nil {
		t.Error("a language that is not there: no error")
	}
}

func TestConcurrent(t *testing.T) {
	r := mustLoad(t).Rule("dns-delay")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				_, holds, err := r.Eval(map[string]any{"answered": 100, "slow": 50 * (i % 2), "p95": 2.0, "lasting": 30.0})
				if holds != (i%2 == 1) || err != nil {
					t.Errorf("holds %v, %v", holds, err)
				}
				if _, err := r.Text("summary", nil, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFormats(t *testing.T) {
	s, err := loadSmall(small)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, en, ko string }{
		{`{{percent 0}}`, "0 %", "0%"},
		{`{{percent 0.9}}`, "90 %", "90%"},
		{`{{percent 0.9996}}`, "99.9 %", "99.9%"},
		{`{{percent 0.994}}`, "99.4 %", "99.4%"},
		{`{{percent 1}}`, "100 %", "100%"},
		{`{{percent 0.031}}`, "3.1 %", "3.1%"},
		{`{{percent 0.0004}}`, "0.04 %", "0.04%"},
		{`{{percent 0.00001}}`, "less than 0.01 %", "0.01% 미만"},
		{`{{duration 0}}`, "0 s", "0초"},
		{`{{duration 0.00002}}`, "20 µs", "20µs"},
		{`{{duration 0.0025}}`, "2.5 ms", "2.5ms"},
		{`{{duration 0.2}}`, "200 ms", "200ms"},
		{`{{duration 2.94}}`, "2.9 s", "2.9초"},
		{`{{duration 59.7}}`, "1 min", "1분"},
		{`{{duration 125}}`, "2 min 5 s", "2분 5초"},
		{`{{duration 7500}}`, "2 h 5 min", "2시간 5분"},
		{`{{duration 190000}}`, "2 d 5 h", "2일 5시간"},
		{`{{bytes 1400}}`, "1,400 bytes", "1,400바이트"},
		{`{{count 1234567}}`, "1,234,567", "1,234,567"},
		{`{{rate 6.44}}`, "6.4 per second", "초당 6.4"},
		{`{{rate 0.05}}`, "3 per minute", "분당 3"},
		{`{{rate 300}}`, "300 per second", "초당 300"},
		{`{{decimal 2.25}}`, "2.2", "2.2"},
		{`{{plural 1 "query" "queries"}}`, "1 query", "1 query"},
		{`{{plural 0 "query" "queries"}}`, "0 queries", "0 queries"},
		{`{{word "inbound"}}`, "inbound", "수신 방향"},
		{`{{detail "started 1.5 s before its listener was seen"}}`, "started 1.5 s before its listener was seen", "수신 대기가 보이기 1.5초 전에 시작"},
		{`{{detail "modified at 2026-01-02T03:04:05Z, after the last boot; runs as a b (pid 7), and was replaced or removed since"}}`,
			"modified at 2026-01-02T03:04:05Z, after the last boot; runs as a b (pid 7), and was replaced or removed since",
			"마지막 부팅 뒤 2026-01-02T03:04:05Z에 수정됨, a b (pid 7)(으)로 실행 중, 이후 교체되거나 삭제됨"},
		{`{{detail "modified at 2026-01-02T03:04:05Z, after the last boot; packages were installed, changed or removed"}}`,
			"modified at 2026-01-02T03:04:05Z, after the last boot; packages were installed, changed or removed",
			"마지막 부팅 뒤 2026-01-02T03:04:05Z에 수정됨, 패키지 설치, 변경 또는 삭제"},
		{`{{detail "flags up → down"}}`, "flags up → down", "flags up → down"},
		{`{{hostport "10.0.0.1" 53}}`, "10.0.0.1:53", "10.0.0.1:53"},
		{`{{hostport "::1" 53}}`, "[::1]:53", "[::1]:53"},
		{`{{hostport "10.0.0.1" 0}}`, "10.0.0.1", "10.0.0.1"},
		{`{{port 0}} {{port 53}}`, "PORT 53", "PORT 53"},
		{`{{pingsize "10.0.0.1" 1400}} {{pingsize "::1" 1400}} {{pingsize "" 3}}`, "1372 1352 0", "1372 1352 0"},
		{`{{v6 "::1"}} {{v6 "10.0.0.1"}}`, "true false", "true false"},
		{`{{percent .x}}`, "–", "–"},
	} {
		for lang, want := range map[string]string{"en": c.en, "ko": c.ko} {
			var d decoder
			n := &node{file: &source{name: "x"}, line: 1, col: 1, text: c.text}
			tmpl := d.text(n, lang, s.Rule("thing").zero)
			if len(d.errs) > 0 {
				t.Fatal(d.errs)
			}
			if got, err := tmpl.render(map[string]any{"x": math.Inf(1)}); got != want || err != nil {
				t.Errorf("%s in %s = %q, %v; want %q", c.text, lang, got, err, want)
			}
		}
	}
}

func BenchmarkEval(b *testing.B) {
	s, err := loadSmall(small)
	if err != nil {
		b.Fatal(err)
	}
	r := s.Rule("thing")
	var f any = thing{N: 10, X: 0.5}
	b.ReportAllocs()
	for b.Loop() {
		if _, holds, _ := r.Eval(f); !holds {
			b.Fatal("does not hold")
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	_, features := catalogue(b)
	for b.Loop() {
		if _, err := Load(features); err != nil {
			b.Fatal(err)
		}
	}
}
