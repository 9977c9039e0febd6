package harness

import "path/filepath"

// StartsOnFullDisk makes, in a folder, a program to be started in place of binary
// whose every write to a file fails from the start on, until [Rosterd.FullDisk]
// makes room. See [TakesFullDisk].
func StartsOnFullDisk(dir, binary string) (program string, err error) {
	program = filepath.Join(dir, "rosterd-starts-on-full-disk")
	script := "#!/bin/sh\nulimit -S -f 0\nexec env --block-signal=XFSZ '" + binary + "' \"$@\"\n"
	return program, writeProgram(program, script)
}
