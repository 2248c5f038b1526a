package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
)

func newRules(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "rules",
		Short: "List, check and test the catalogue of diagnoses",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newRulesList(a), newRulesCheck(), newRulesTest(a))
	return c
}

func newRulesList(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the rules with their severity, steps and titles",
		Args:  noArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			set, err := diagnose.Catalogue(dir)
			if err != nil {
				return a.FailEach(err)
			}
			table := [][]string{{"RULE", "SEVERITY", "STEPS", "TITLE"}}
			for _, r := range set.Rules {
				severity := r.Severity
				for _, w := range r.SeverityWhen {
					severity += "/" + w.Severity
				}
				if !r.Enabled {
					severity = "off"
				}
				table = append(table, []string{r.ID, severity, strings.Join(r.Steps, ","), r.Name(a.Lang)})
			}
			out := bufio.NewWriter(os.Stdout)
			report.Table(out, table)
			return out.Flush()
		},
	}
	c.Flags().StringVar(&dir, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	return c
}

func newRulesCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check [DIR]",
		Short: "Check a directory with rules of your own, or the built-in ones",
		Long: `Checks every *.yaml file in DIR as 'jindan analyze --rules DIR' would read it, and prints
each mistake as file:line:column: what is wrong.

A file that names a rule of the catalogue and has only the keys id, enabled, params, severity,
severity_when, for and keep_for changes these. For example, to tolerate more CLOSE_WAIT:

  id: close-wait
  params:
    min_sockets: 50

A file with more keys replaces the rule; it must be complete. 'jindan explain RULE' shows the
thresholds. A file with another id adds a rule over the features of the one that it names:

  id: slow-names
  features: dns-delay
  params: {most: {value: 20ms, source: our resolver stands in the same rack}}
  when: p95 >= most
  for: 0s
  keep_for: 1m
  severity: info
  text:
    en: {title: Names take longer than we want, summary: "{{.host}} waits for names"}

causes.yaml adds links between rules.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("give one directory (see 'jindan rules check --help')")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			dir := ""
			if len(args) == 1 {
				dir = args[0]
			}
			set, err := diagnose.Catalogue(dir)
			if err == nil {
				err = set.Compile()
			}
			if err != nil {
				n := len(cli.SplitErrors(err))
				for _, e := range cli.SplitErrors(err) {
					fmt.Fprintln(os.Stderr, cli.OneLine(e)) // as compilers do: editors jump there
				}
				return cli.Exit(cli.ExitUnusable, fmt.Errorf("%d mistakes; nothing was loaded", n))
			}
			_, err = fmt.Printf("%d rules, %d steps and %d causal links are in order\n", len(set.Rules), len(set.Steps), set.Links())
			return err
		},
	}
}
