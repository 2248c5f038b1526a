package main

import (
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/drill"
	"jindan/cmd/internal/privsep"
	"jindan/fixtures/lab"
	"jindan/fixtures/lab/program"
)

// runProgram ends the process if it was started as one of the lab's own programs.
func runProgram() { program.Main() }

// keepCapabilities serves an agent that holds none, if this process was started for that.
func keepCapabilities() bool { return privsep.Keep() }

func newDrill(a *app) *cobra.Command {
	var f drill.Options
	c := &cobra.Command{
		Use:   "drill SCENARIO…",
		Short: "Rebuild an incident in network namespaces and show the diagnosis",
		Long: `Builds a small network out of network namespaces, starts real servers and clients in it, breaks
it at a known time, captures the packets and diagnoses them. One scenario is shown with its time
line, the expected diagnosis and the diagnosis found; several, or "all", as a table. What takes
place stays inside namespaces of its own and is taken down at the end; what an interrupted drill
left behind is removed by the next.

Needs root, and the programs ip, ss, tc, sysctl, nft, ethtool, tcpdump, nginx, unbound, dnsmasq.
Exit status: 1 if a diagnosis is not as expected, 2 if a scenario cannot be run.`,
		Example: `  jindan drill list
  sudo jindan drill S1                       the incident of 17 November 2023
  sudo jindan drill S1 --keep DIR            keep captures, socket counts and the truth
  sudo jindan drill all --jobs 4 --runs 3    everything, with three seeds`,
		Args: someArgs("a scenario, or all ('jindan drill list' lists them)"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			ids := []string{"all"}
			for _, s := range lab.Scenarios() {
				ids = append(ids, s.ID)
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			return drill.Command{App: &a.App}.Run(c.Context(), args, f)
		},
	}
	c.Flags().StringVar(&f.Keep, "keep", "", "`directory` in which captures, samples and truth are kept, in SCENARIO-SEED")
	_ = c.MarkFlagDirname("keep")
	c.Flags().Uint64Var(&f.Seed, "seed", 1, "`number` that decides what is left to chance, as far as the kernel lets it")
	c.Flags().IntVar(&f.Runs, "runs", 1, "run each scenario with `N` seeds, beginning with --seed")
	c.Flags().IntVar(&f.Jobs, "jobs", 1, "run `N` scenarios at a time")
	c.Flags().StringVarP(&f.Output, "output", "o", "text", "`format`: text, markdown (the table) or ndjson (a record a run)")
	c.Flags().StringVar(&f.Rules, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	agentFlag(c, &f.Agent, "also run the agent on the captured host, with packets and without, and replay its recording")
	fixed(c, "output", "text", "markdown", "ndjson")
	c.AddCommand(newDrillList(), newDrillAgain(a), newDrillSites(a))
	return c
}

// agentFlag adds --agent, which makes this program the agent that is run beside a drill.
func agentFlag(c *cobra.Command, program *string, usage string) {
	c.Flags().BoolFunc("agent", usage, func(v string) error {
		on, err := strconv.ParseBool(v)
		if *program = ""; on && err == nil {
			*program, err = os.Executable()
		}
		return err
	})
}

func newDrillList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the scenarios",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return drill.List()
		},
	}
}

func newDrillAgain(a *app) *cobra.Command {
	var f drill.Options
	c := &cobra.Command{
		Use:   "again DIR…",
		Short: "Diagnose drills once more that were kept with --keep",
		Long: `Diagnoses what 'jindan drill --keep' has kept, and holds it against what is expected: after a
change to a rule, without waiting for the drills, and without root. Exit status: 1 if a diagnosis
is not as expected.`,
		Args: someArgs("directories of kept drills"),
		RunE: func(c *cobra.Command, args []string) error {
			return drill.Command{App: &a.App}.Again(c.Context(), args, f)
		},
	}
	c.Flags().StringVarP(&f.Output, "output", "o", "text", "`format`: text, markdown (the table) or ndjson (a record a run)")
	c.Flags().StringVar(&f.Rules, "rules", "", "`directory` with rules of your own")
	_ = c.MarkFlagDirname("rules")
	fixed(c, "output", "text", "markdown", "ndjson")
	return c
}

func newDrillSites(a *app) *cobra.Command {
	var f drill.SiteOptions
	c := &cobra.Command{
		Use:   "sites [DIR…]",
		Short: "Draw sites and faults from a seed, run them, and say how often the diagnosis is right",
		Long: `Draws sites that the scenarios do not look like: addresses, programs, protocols, what stands before
and behind the service, how it is captured, what goes wrong and what else happens. Runs each in
network namespaces, with real programs, and holds the diagnosis against the truth. Prints a table
of faults and verdicts, false alarms, true causes that were ruled out, and the share that is right
by shape. With directories, diagnoses the sites again that were kept there, without root.

Exit status: 1 if a diagnosis is wrong, 2 if a site could not be run.`,
		Example: `  sudo jindan drill sites --runs 200 --seed 100000 --jobs 4
  sudo jindan drill sites --runs 20 --set fault:slow-dns --keep DIR
  jindan drill sites DIR/*`,
		RunE: func(c *cobra.Command, args []string) error {
			return drill.Command{App: &a.App}.Sites(c.Context(), args, f)
		},
	}
	c.Flags().StringVar(&f.Keep, "keep", "", "`directory` in which captures and truth are kept, in SEED-shape-fault")
	_ = c.MarkFlagDirname("keep")
	c.Flags().Uint64Var(&f.Seed, "seed", 1, "first `number` from which a site is drawn")
	c.Flags().IntVar(&f.Runs, "runs", 1, "draw `N` sites")
	agentFlag(c, &f.Agent, "run the agent on the server too, and judge every root that it names")
	c.Flags().IntVar(&f.Jobs, "jobs", 1, "run `N` at a time")
	c.Flags().StringVarP(&f.Output, "output", "o", "text", "`format`: text, markdown (the tables) or ndjson (a record a site)")
	c.Flags().StringVar(&f.Rules, "rules", "", "`directory` with rules of your own")
	c.Flags().StringArrayVar(&f.Set, "set", nil, "leave something not to chance: `key:value`, as fault:slow-dns or engine:nginx")
	c.Flags().BoolVar(&f.Damage, "damage", false, "diagnose the kept sites again from damaged captures: does a right root become a wrong one?")
	fixed(c, "output", "text", "markdown", "ndjson")
	return c
}
