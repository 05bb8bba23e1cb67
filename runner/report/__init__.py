"""What people, spreadsheets, git and the model read about a campaign. Pure functions of its experiments."""
