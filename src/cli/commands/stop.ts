import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import { isAbsent, type ApiClient } from '../../api/client.ts'
import { DaemonUnreachableError, NodeStoppedError } from '../../base/index.ts'
import { action } from '../context.ts'
import { duration } from '../format.ts'
import { stateOf } from '../process-state.ts'

/** A daemon leaves within five seconds, whatever happens; a slow host gets as long again. */
const PATIENCE_MS = 10_000
/** For whether anybody still answers: one that lives does in milliseconds. */
const ANSWER_MS = 1_000
const LOOK_MS = 50

export function addStop (program: Command): void {
  program.command('stop')
    .description('stop the daemon, and return when it has ended; what it holds stays')
    .action(action(async context => {
      const startedAt = performance.now()
      const askedAt = Date.now()
      const { pid } = await context.client.shutdown()
      // The pid alone says little of a daemon in a container, nor the socket of one that still puts away what it has.
      while (await stateOf(pid) === 'alive' || await answers(context.client, askedAt)) {
        if (performance.now() - startedAt > PATIENCE_MS) throw new NodeStoppedError(`the daemon (pid ${pid}) was asked to stop and still runs; look at its log, or ${await wayOut(pid)}`)
        await setTimeout(LOOK_MS)
      }
      const took = (performance.now() - startedAt) / 1_000
      context.print({ stopped: true, pid, seconds: took }, `stopped, in ${duration(took)}`)
    }))
}

/** Whether the daemon that was asked at `askedAt`, in milliseconds since 1970, still answers: a service manager may have started the next one. */
async function answers (client: ApiClient, askedAt: number): Promise<boolean> {
  try {
    const { startedAt } = await client.status({ signal: AbortSignal.timeout(ANSWER_MS) })
    return startedAt < askedAt
  } catch (error) {
    return !(error instanceof DaemonUnreachableError && isAbsent(error.cause))
  }
}

/** Nobody is told to kill what is not the daemon; the first process of a container takes no signal from within. */
async function wayOut (pid: number): Promise<string> {
  if (pid > 1 && await stateOf(pid) === 'alive') return `end it with: kill -9 ${pid}`
  return 'end it where it runs: the pid is that of a container, which is to be stopped'
}
