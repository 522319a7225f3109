"""Where the four rooms that stand on the core are taken away, what asks for all of the package is left out."""

from importlib.util import find_spec

ROOMS = ("serving", "upkeep", "publishing", "scale")
WHOLE = ("test_deploy.py", "test_extending.py", "test_files_page.py", "test_form_numbers.py", "test_house_rules.py")
MORE = ("test_links.py", "test_packaging.py", "test_pages.py", "test_rooms.py", "test_scale_model.py")
collect_ignore = [] if all(find_spec(f"trimtab.{room}") for room in ROOMS) else [*WHOLE, *MORE]
