# An application around the snippet: a database, and a page that adds a contact in a transaction.
require "rails"
require "active_record/railtie"
require "active_job/railtie"
require "action_controller/railtie"
require "net/http"
require "webrick"
require "rack/handler/webrick"

class App < Rails::Application
  config.eager_load = false
  config.hosts.clear
  config.secret_key_base = "x" * 32
  config.consider_all_requests_local = false
  config.action_dispatch.show_exceptions = true
  config.logger = Logger.new($stderr)
  config.active_job.queue_adapter = :async
end
ENV["DATABASE_URL"] = "sqlite3:db.sqlite3"
class ApplicationRecord < ActiveRecord::Base; self.abstract_class = true; end
class ApplicationJob < ActiveJob::Base; end
App.initialize!
ActiveRecord::Base.establish_connection(adapter: "sqlite3", database: "db.sqlite3", timeout: 5000)
ActiveRecord::Schema.define do
  create_table(:users) { |t| t.string :name }
  create_table(:contacts) { |t| t.references :user; t.string :jid; t.string :name }
end
class User < ApplicationRecord; has_many :contacts; end
SNIPPET
User.create!(name: "juliet")
class AddController < ActionController::API
  def add
    Contact.transaction { Contact.create!(user: User.find_by!(name: "juliet"), jid: "romeo@example.org", name: "Romeo") }
    render plain: "added"
  end
end
App.routes.draw do
  get "contacts/:user", to: "contacts#show", constraints: { user: /[^\/]+/ }, format: false
  get "add", to: "add#add"
end
host, port = ENV["LISTEN"].split(":")
Rack::Handler::WEBrick.run(App, Host: host, Port: port.to_i)
