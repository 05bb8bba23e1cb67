"""Questions asked of a campaign afterwards. Each trains programs again; none changes the branch."""
