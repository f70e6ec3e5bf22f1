"""One file a command group; each registers its commands on the tree (`cli.tree`)."""
