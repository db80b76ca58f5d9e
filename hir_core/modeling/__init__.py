"""Models as the ranks use them: loading, rendering text as tokens, ZeRO, and each rank's share of the rows."""
