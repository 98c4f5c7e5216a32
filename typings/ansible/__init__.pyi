"""Types of the two classes of ansible-core that our plugins use; ansible-core ships none."""
