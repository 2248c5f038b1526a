package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocs: what the pages link to is there, and the README stays a page that a stranger finishes.
func TestDocs(t *testing.T) {
	pages := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, dir := range []string{"analyze", "cmd", "fixtures", "packaging", "rules"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(name string, _ os.DirEntry, err error) error {
			if filepath.Base(name) == "node_modules" { // not ours
				return filepath.SkipDir
			}
			if filepath.Base(name) == "README.md" {
				rel, _ := filepath.Rel("../..", name)
				pages = append(pages, rel)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(page), -1) {
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			found := m[2] == ""
			if !found {
				for _, h := range heading.FindAllStringSubmatch(read(target), -1) {
					found = found || strings.ReplaceAll(strings.ToLower(h[1]), " ", "-") == m[2]
				}
			}
			if !found {
				t.Errorf("%s links to %s#%s, and there is no such heading", page, target, m[2])
			}
		}
	}
	if n := strings.Count(read("README.md"), "\n"); n > 220 {
		t.Errorf("README.md has %d lines, more than 220: longer texts belong to the README of the folder that they speak of", n)
	}
}
