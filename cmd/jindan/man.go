package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
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
			// Their date is SOURCE_DATE_EPOCH: the same pages from the same source.
			return doc.GenManTree(c.Root(), &doc.GenManHeader{Section: "1", Source: "jindan " + version, Manual: "jindan"}, args[0])
		},
	}
}
