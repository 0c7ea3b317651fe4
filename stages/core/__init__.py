"""What every stage needs: parameters, files, the device, downloads, how a stage starts and fails."""
