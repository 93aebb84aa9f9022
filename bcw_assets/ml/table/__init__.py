"""The table: its columns and rules, every form that it comes in, and the strict one."""
