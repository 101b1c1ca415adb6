import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import { NodeStoppedError, systemCode } from '../../base/index.ts'
import { action } from '../context.ts'
import { duration } from '../format.ts'

/** A daemon leaves within five seconds, whatever happens; a slow host gets as long again. */
const PATIENCE_MS = 10_000
const LOOK_MS = 50

export function addStop (program: Command): void {
  program.command('stop')
    .description('stop the daemon, and return when it has ended; what it holds stays')
    .action(action(async context => {
      const startedAt = performance.now()
      const { pid } = await context.client.shutdown()
      while (runs(pid)) {
        if (performance.now() - startedAt > PATIENCE_MS) {
          throw new NodeStoppedError(`the daemon (pid ${pid}) was asked to stop and still runs; look at its log, or end it with: kill -9 ${pid}`)
        }
        await setTimeout(LOOK_MS)
      }
      const took = (performance.now() - startedAt) / 1_000
      context.print({ stopped: true, pid, seconds: took }, `stopped, in ${duration(took)}`)
    }))
}

/** Whether a process has this id, whoever owns it. */
function runs (pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return systemCode(error) === 'EPERM'
  }
}
