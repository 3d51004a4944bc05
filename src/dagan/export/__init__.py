"""Models as graphs for other runtimes: written (`job`), described (`note`), and run behind the engines' interface (`runtimes`)."""
