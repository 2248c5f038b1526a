package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"jindan/cmd/internal/cli"
)

// newMan writes the manual pages; packages run it at build time.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("give one directory, which must exist")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if st, err := os.Stat(args[0]); err != nil {
				return err
			} else if !st.IsDir() {
				return fmt.Errorf("%s: is no directory", args[0])
			}
			c.Root().DisableAutoGenTag = true
			return manuals(c.Root(), args[0])
		},
	}
}

// manuals writes the pages of c and of the commands below it. Their date is SOURCE_DATE_EPOCH: the same pages from the same source.
func manuals(c *cobra.Command, dir string) error {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
			if err := manuals(sub, dir); err != nil {
				return err
			}
		}
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	var page bytes.Buffer
	if err := doc.GenMan(c, &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Source: "jindan " + cli.Version, Manual: "jindan"}, &page); err != nil {
		return err
	}
	text := page.String()
	before, also, found := strings.Cut(text, "\n.SH SEE ALSO")
	text = before + "\n" + manualSections(c)
	if found {
		text += ".SH SEE ALSO" + also
	}
	return os.WriteFile(filepath.Join(dir, name+".1"), []byte(text), 0o644)
}

// agents are the commands that run, or ask, the agent.
var agents = map[string]bool{"run": true, "check": true, "record": true, "top": true, "ack": true, "health": true, "incidents": true, "config": true}

// manualSections are those that the help of a command does not have (man-pages(7)).
func manualSections(c *cobra.Command) string {
	var b strings.Builder
	section := func(name string, items ...string) {
		fmt.Fprintf(&b, ".SH %s\n", name)
		for i := 0; i+1 < len(items); i += 2 {
			fmt.Fprintf(&b, ".TP\n%s\n%s\n", items[i], items[i+1])
		}
	}
	items := []string{"0", "Done, whatever was found."}
	if c.Flags().Lookup("fail-on") != nil {
		items = append(items, "1", "A finding reached the severity of \\-\\-fail\\-on.")
	}
	items = append(items, "2", "Unusable arguments, input or output, or a damaged file.", "130, 143", "Ended by SIGINT or SIGTERM before it was done.")
	section("EXIT STATUS", items...)
	root := c
	for root.HasParent() && root.Parent().HasParent() {
		root = root.Parent()
	}
	if agents[root.Name()] || !c.HasParent() {
		section("FILES", "/etc/jindan/jindan.yaml, /etc/jindan/jindan.d/*.yaml", "Configuration of the agent; every key is optional.",
			"/run/jindan/jindan.sock", "Metrics, health and findings of the agent.",
			"/var/lib/jindan", "Spool of findings, and recordings of what surrounds serious ones.")
	}
	section("ENVIRONMENT", "LC_ALL, LC_MESSAGES, LANG", "Language of texts, unless \\-\\-lang says otherwise.", "NO_COLOR, TERM, COLUMNS", "Colours and width of the output.")
	switch root.Name() {
	case "run", "record":
		section("SIGNALS", "SIGINT, SIGTERM", "End with the diagnosis; a second one ends at once.", "SIGHUP", "Read the configuration again; open findings stay unless what is watched has changed.",
			"SIGUSR1", "Open the files of sinks again, after log rotation.")
	case "check", "top", "analyze", "flows":
		section("SIGNALS", "SIGINT, SIGTERM", "End; a second one ends at once.")
	}
	return b.String()
}
