package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/sink"
)

func newSchema() *cobra.Command {
	var names []string
	for _, k := range sink.Kinds {
		names = append(names, string(k))
	}
	return &cobra.Command{
		Use:   "schema [finding|diagnosis|heartbeat|notice]",
		Short: "Print the JSON Schema of the records",
		Long: `Prints the JSON Schema (draft 2020-12) of a kind of record, of findings without an argument. Records that analyze and
run write as NDJSON, and sinks with encoding native, hold to it. Later versions may add properties; none changes its
meaning within v1.`,
		Example: `  jindan schema > finding.schema.json
  jindan schema diagnosis | jq .properties.steps`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("give one kind of record (see '%s --help')", c.CommandPath())
			}
			if len(args) == 1 {
				return cli.OneOf("kind of record", args[0], names...)
			}
			return nil
		},
		ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			kind := sink.KindFinding
			if len(args) == 1 {
				kind = sink.Kind(args[0])
			}
			b, err := sink.Schema(kind)
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(b)
			return err
		},
	}
}
