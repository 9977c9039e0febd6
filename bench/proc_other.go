//go:build !linux

package main

import (
	"os/exec"
	"runtime"
	"time"
)

// Without /proc nothing is known of other processes: their figures are 0.

func dieWithParent(*exec.Cmd)             {}
func cpu(int) time.Duration               { return 0 }
func rss(int) (now, peak int64)           { return 0, 0 }
func childrenCPU(...string) time.Duration { return 0 }
func machine() string                     { return runtime.GOARCH }
func raiseFiles()                         {}
