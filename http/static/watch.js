// Looking again and again while somebody watches.

const REST = 9; // a look that took a second is followed by nine of rest: a large service isn't worn out

/**
 * Call `look()` now and then every `seconds`, while the page is visible. `onAnswer` and `onTrouble(error)`
 * hear how it went. Answers a function that looks at once, and is done when that has been seen.
 */
export function watch(seconds, look, onAnswer, onTrouble) {
  let timer = null;
  let running = null;
  let again = false;

  async function turn() {
    const began = performance.now();
    try {
      await look();
      onAnswer();
    } catch (error) {
      onTrouble(error);
    }
    const took = performance.now() - began;
    if (!document.hidden) timer = setTimeout(now, Math.max(seconds * 1000 - took, took * REST));
  }

  async function now() {
    clearTimeout(timer);
    again = running !== null;
    running ??= loop();
    await running;
  }

  async function loop() {
    do {
      again = false;
      clearTimeout(timer);
      await turn();
    } while (again);
    running = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else now();
  });
  addEventListener("signed-in", now); // so that the time it took to sign in isn't rested for
  now();
  return now;
}
