/** Long work, cut into turns: it yields when it is time for others. A node answers its peers on the same thread. */
export type Turns<T> = Generator<void, T>

/** Others get their turn wherever the work yields. */
export async function inTurns<T> (work: Turns<T>): Promise<T> {
  for (let turn = work.next(); ; turn = work.next()) {
    if (turn.done === true) return turn.value
    await nextTurn()
  }
}

/** For who cannot wait. */
export function atOnce<T> (work: Turns<T>): T {
  for (let turn = work.next(); ; turn = work.next()) if (turn.done === true) return turn.value
}

export async function nextTurn (): Promise<void> {
  await new Promise(resolve => { setImmediate(resolve) })
}
