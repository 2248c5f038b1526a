package report

import (
	"fmt"
	"math"
	"regexp"
	"testing"
)

// Every colour that is put on another one: texts 4.5 to 1 and marks 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11), in both themes and on paper.
func TestContrast(t *testing.T) {
	themes := regexp.MustCompile(`:root\{([^}]*)\}`).FindAllStringSubmatch(pageStyle, -1)
	if len(themes) != 3 {
		t.Fatalf("%d themes", len(themes))
	}
	for i, theme := range themes {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z]+):#([0-9a-f]{6})`).FindAllStringSubmatch(theme[1], -1) {
			var rgb [3]uint8
			if _, err := fmt.Sscanf(m[2], "%02x%02x%02x", &rgb[0], &rgb[1], &rgb[2]); err != nil {
				t.Fatal(err)
			}
			l := 0.0
			for k, w := range []float64{0.2126, 0.7152, 0.0722} {
				c := float64(rgb[k]) / 255
				if c <= 0.04045 {
					c /= 12.92
				} else {
					c = math.Pow((c+0.055)/1.055, 2.4)
				}
				l += w * c
			}
			colour[m[1]] = l
		}
		pair := func(a, b string, least float64) {
			x, y := colour[a], colour[b]
			if x < y {
				x, y = y, x
			}
			if got := (x + 0.05) / (y + 0.05); got < least {
				t.Errorf("theme %d: %s on %s has contrast %.2f, less than %.1f", i, a, b, got, least)
			}
		}
		for _, ground := range []string{"bg", "panel", "quiet"} {
			for _, text := range []string{"fg", "muted", "bad", "ok", "effect"} {
				pair(text, ground, 4.5)
			}
		}
	}
}
