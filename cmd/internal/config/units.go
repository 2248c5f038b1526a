package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// Units of sizes.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

var sizeUnits = []struct {
	name string
	size Size
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// parseSize reads a whole number with a unit; 0 needs none.
func parseSize(s string) (Size, bool) {
	if s == "0" {
		return 0, true
	}
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
			return Size(n) * u.size, err == nil && n <= uint64(math.MaxInt64/u.size)
		}
	}
	return 0, false
}

// String is s in the largest unit that has no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && s%u.size == 0 {
			return fmt.Sprintf("%d%s", s/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// Percent is a share in hundredths.
type Percent float64

var percentFormat = regexp.MustCompile(`^[0-9]{1,6}(\.[0-9]{1,6})? ?%$`)

func parsePercent(s string) (Percent, bool) {
	if !percentFormat.MatchString(s) {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.TrimRight(s, " %"), 64)
	return Percent(f), err == nil
}

// String is p with its sign.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

// formatDuration is d without the zero parts that [time.Duration.String] adds.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// masked stands for a secret wherever it would be shown.
const masked = "<secret>"

// Secret is a text that shows as "<secret>" in every format; convert it to a string to use it.
type Secret string

// String is "<secret>", or empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Near is a suggestion for a misspelt word, or for one of which the end is missing; empty if none of the known ones is close.
func Near(word string, known []string) string {
	best, at := 3, "" // edits; a typing error is one or two
	for _, k := range known {
		if d := edits(word, k); d < best && 2*d < len(k) {
			best, at = d, k
		}
	}
	if at == "" && len(word) > 2 {
		for _, k := range known {
			switch {
			case !strings.HasPrefix(k, word):
			case at != "":
				return "" // of several
			default:
				at = k
			}
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", at)
}

// edits is the number of insertions, deletions, substitutions and swaps of neighbours between a
// and b (optimal string alignment); words of more than 64 bytes are far from everything.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	rows := [3][65]int{}
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, prev, cur := &rows[(i+2)%3], &rows[i%3], &rows[(i+1)%3]
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

// oneOf lists alternatives: "a, b or c".
func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
