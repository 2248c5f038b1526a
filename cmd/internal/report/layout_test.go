package report

import (
	"strings"
	"testing"
	"time"
)

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "abc": 3, "유실": 4, "a유b": 4, "→…·": 3, "e\u0301": 1, "（全": 4, "각": 2, "\u1100\u1161\u11a8": 2, "\u200b": 0,
	} {
		if got := Width(s); got != want {
			t.Errorf("Width(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		s    string
		w    int
		want string
	}{
		{"", 10, ""},
		{"one two three", 9, "one two|three"},
		{"크기 의존 유실", 9, "크기 의존|유실"},
		{"크기의존유실", 8, "크기의존|유실"},
		{"run `a b c` now", 10, "run|`a b c`|now"},
		{"run `a b c d e f` now", 10, "run|`a b c d e f`|now"},
		{"aaaaaaaaaaaaaaaaaaaa b", 8, "aaaaaaaa|aaaaaaaa|aaaa b"},
		{"odd ` tick here", 10, "odd ` tick|here"},
		{"a\n  b\tc", 10, "a b c"},
		{"\u0319 0", 10, "\u0319 0"}, // a word of no width is still a word
	} {
		if got := strings.Join(Wrap(c.s, c.w), "|"); got != c.want {
			t.Errorf("Wrap(%q, %d) = %q, want %q", c.s, c.w, got, c.want)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("run `ip route` 크기 의존", 12)
	f.Fuzz(func(t *testing.T, s string, w int) {
		if w < 8 || w > 200 {
			return
		}
		lines := Wrap(s, w)
		for _, l := range lines {
			if Width(l) > w && (strings.Count(l, "`") < 2 || Width(l) > longestCommand) {
				t.Errorf("%d columns, want at most %d: %q", Width(l), w, l)
			}
		}
		join := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if got, want := join(strings.Join(lines, "")), join(Clean(s)); got != want {
			t.Errorf("%q became %q", want, got)
		}
		if c := clip(s, w); Width(c) > w+1 {
			t.Errorf("clip: %d columns of %d: %q", Width(c), w, c)
		}
	})
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"short", "short"},
		{"one two three four", "one two three …"},
		{"크기 의존 유실 발견", "크기 의존 유실 …"},
	} {
		if got := clip(c.in, 16); got != c.want {
			t.Errorf("clip(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSentences(t *testing.T) {
	for _, c := range []struct {
		in   string
		fits int
		want string
	}{
		{"One. Two.", 0, "One."}, {"One. Two. Three.", 9, "One. Two."}, {"p95 1.2 s. More", 0, "p95 1.2 s."},
		{"e.g. this", 0, "e.g. this"}, {"끝났습니다. 다음", 0, "끝났습니다."}, {"none", 0, "none"}, {"", 9, ""}, {"One. Two.", 99, "One. Two."},
	} {
		if got := sentences(c.in, func(s string) bool { return len(s) <= c.fits }); got != c.want {
			t.Errorf("sentences(%q, %d) = %q, want %q", c.in, c.fits, got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00 s", 50 * time.Microsecond: "50 µs", 2500 * time.Microsecond: "2.5 ms", 40 * time.Millisecond: "0.04 s",
		14 * time.Second: "14.0 s", 125 * time.Second: "2 min 05 s", 3 * time.Hour: "3 h 00 min", 50 * time.Hour: "2 days 2 h", -time.Second: "−1.0 s",
	} {
		if got := English.span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "+0.00 s", 40 * time.Millisecond: "+0.04 s", 14250 * time.Millisecond: "+14.2 s", -time.Second: "−1.0 s", -20 * time.Millisecond: "≈0 s"} {
		if got := English.offset(d); got != want {
			t.Errorf("offset(%v) = %q, want %q", d, got, want)
		}
	}
}
