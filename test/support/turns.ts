/** How many turns of the event loop others got until the work was done. */
export async function countTurns<T> (work: () => Promise<T>): Promise<{ turns: number, result: T }> {
  let turns = 0
  let ended = false
  const working = work().finally(() => { ended = true })
  while (!ended) {
    await new Promise(resolve => { setImmediate(resolve) })
    turns++
  }
  return { turns, result: await working }
}
