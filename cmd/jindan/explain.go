package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/rules"
)

func newExplain(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "explain STEP|RULE",
		Short: "Print the manual page of a diagnosis",
		Long: `Prints what a rule or a diagnostic step means: what confirms it and what rules it out, its
thresholds and where they come from, what it can be confused with, what can cause it and follow
from it, what to do, and the sources. Names are those of 'jindan rules list', of the findings
("rule", "steps"), or the steps' numbers, such as T1.`,
		Example: `  jindan explain close-wait
  jindan explain --lang ko T11`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("give one rule or step ('jindan rules list' lists them)")
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			set, err := diagnose.Catalogue(dir)
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return pageNames(set), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := diagnose.Catalogue(dir)
			if err != nil {
				return a.FailEach(err)
			}
			o := report.Options{Lang: report.Lang(a.Lang), Width: cli.Columns(os.Stdout), Color: a.WantColor(os.Stdout)}
			switch r, s := report.FindPage(set, args[0]); {
			case r != nil:
				return report.RulePage(os.Stdout, set, r, o)
			case s != nil:
				return report.StepPage(os.Stdout, set, s, o)
			}
			names := pageNames(set)
			return fmt.Errorf("there is no rule or step %q%s\nThere are %s", args[0], cli.Near(args[0], names), strings.Join(names, ", "))
		},
	}
	c.Flags().StringVar(&dir, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	return c
}

// pageNames are the rules and those steps that have another name.
func pageNames(set *rules.Set) []string {
	var names []string
	for _, r := range set.Rules {
		names = append(names, r.ID)
	}
	for _, s := range set.Steps {
		if set.Rule(s.ID) == nil {
			names = append(names, s.ID)
		}
	}
	return names
}
