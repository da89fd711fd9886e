"""What has been run on which layout, mode, device and launcher, as a page."""
