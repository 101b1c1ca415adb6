import type { Command } from 'commander'
import { action } from '../context.ts'

export function addInvite (program: Command): void {
  program.command('invite')
    .description('print a token with which others join; it holds the swarm key, keep it secret')
    .action(action(async context => {
      const invite = await context.client.invite()
      context.print({ invite }, invite)
    }))
}
