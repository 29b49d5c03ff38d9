"""From a folder to jobs: watching, scanning, settling, and pairing files with styles."""
