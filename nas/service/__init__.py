"""The service: a web page and an API over a folder of runs. Opening what is finished needs neither torch nor ray."""
