"""Where Modules, ConfigMaps and Secrets come from."""
