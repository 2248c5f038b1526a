package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"jindan/capture/live/filter"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
)

func newConfig() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check and print the agent's configuration",
		Long: `The agent's configuration is made of layers, each over the one before: built-in defaults,
` + config.DefaultFile + ` (or --config FILE), the files jindan.d/*.yaml beside it in the order of
their names, the environment (JINDAN_LOG_LEVEL sets log.level), and the flags of 'jindan run'.
Mappings merge key by key, and lists replace; sinks add up, and one with the name of an earlier
sink takes its place. ${NAME} in a file stands for the environment's variable NAME.

'jindan config print' without a file shows every key with its default.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newConfigCheck(), newConfigPrint())
	return c
}

func newConfigCheck() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check",
		Short: "Find the mistakes in the configuration",
		Long: `Prints each mistake as file:line:column: what is wrong and what is allowed. Files with secrets,
certificates and rules are read, too; a certificate that has expired is a mistake here, while
'jindan run' only warns of it. Run it as the agent's user: another may read more, or less.

Exit status: 0 in order, 2 with mistakes.`,
		Args: noArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, true)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(os.Stdout)
			for _, w := range cfg.Read.Warnings {
				fmt.Fprintf(os.Stderr, "%v (warning)\n", w)
			}
			for _, c := range cfg.Read.Certificates {
				fmt.Fprintf(out, "certificate %s (%s) is valid until %s\n", c.File, c.Subject, c.NotAfter.UTC().Format("2006-01-02"))
			}
			read := append(append(cfg.Read.Files, cfg.Read.Variables...), cfg.Read.Flags...)
			if len(read) == 0 {
				read = []string{"no file, the defaults"}
			}
			sinks := make([]string, len(cfg.Sinks))
			for i, s := range cfg.Sinks {
				sinks[i] = s.Name
			}
			fmt.Fprintf(out, "the configuration is in order: read %s; sinks: %s\n", strings.Join(read, ", "), strings.Join(append(sinks, "none")[:max(len(sinks), 1)], ", "))
			return out.Flush()
		},
	}
	configFlag(c, &file)
	return c
}

func newConfigPrint() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "print",
		Short: "Print the configuration in effect, and where each value came from",
		Long: `Prints the configuration in effect as YAML: every key, and as a comment where its value came
from unless it is the default. It is a valid configuration itself and means the same. Secrets
are shown as the references that were written, never as their values.`,
		Args: noArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, false)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(os.Stdout)
			fmt.Fprintln(out, "# The configuration in effect; a comment after a value says where it came from.")
			if err := cfg.Print(out); err != nil {
				return err
			}
			return out.Flush()
		},
	}
	configFlag(c, &file)
	return c
}

func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", "", "configuration `file` (default "+config.DefaultFile+", if there is one)")
	_ = c.MarkFlagFilename("config", "yaml")
}

// loadConfig reads the configuration and the rules that it names. Mistakes are printed as compilers
// do: editors jump there.
func loadConfig(file string, strict bool) (*config.Config, error) {
	return loadConfigWith(file, strict, func(*config.Options) {})
}

// loadConfigWith lets flags have the last word.
func loadConfigWith(file string, strict bool, flags func(*config.Options)) (*config.Config, error) {
	builtIn, err := diagnose.Catalogue("")
	if err != nil {
		return nil, err
	}
	o := config.Options{File: file, Environ: os.Environ(), Now: time.Now(), Strict: strict, Filter: checkFilter}
	flags(&o)
	for _, r := range builtIn.Rules {
		o.Rules = append(o.Rules, r.ID)
	}
	cfg, err := config.Load(o)
	if err == nil && cfg.Rules != "" {
		_, err = diagnose.Catalogue(cfg.Rules)
	}
	if err == nil {
		return cfg, nil
	}
	mistakes := cli.SplitErrors(err)
	for _, e := range mistakes {
		fmt.Fprintln(os.Stderr, cli.OneLine(e))
	}
	if len(mistakes) == 1 {
		return nil, cli.Exit(cli.ExitUnusable, errors.New("the configuration has a mistake"))
	}
	return nil, cli.Exit(cli.ExitUnusable, fmt.Errorf("the configuration has %d mistakes", len(mistakes)))
}

// checkFilter says where a capture filter cannot be read.
func checkFilter(expr string) (int, error) {
	_, err := filter.Parse(expr)
	var e *filter.SyntaxError
	if errors.As(err, &e) {
		return e.Pos, errors.New(e.What)
	}
	return -1, err
}
