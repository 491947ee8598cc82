"""Reports as one self-contained page of HTML, to look at, keep or print."""
