"""``blockemu-img``'s commands, a module each with a coroutine ``run``."""
